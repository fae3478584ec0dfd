"""Write the JSON schemas and docs/config.md anew: `python -m thinkdraw.settings`.

To be run in a checkout after a description, a default or a setting has changed; tests compare both with the code.
"""

from pathlib import Path

from thinkdraw.settings.page import page
from thinkdraw.settings.schema import FOLDER, write_schemas

write_schemas()
print(FOLDER)
docs = Path("docs")
if docs.is_dir():
    (docs / "config.md").write_text(page(), encoding="utf-8")
    print(docs / "config.md")
