"""Colours of the report and its charts, light and dark, and the charts' styles."""

NUM_COLORS = 6  # c1 … c6
STYLE = """:root {
  --paper: #fbfaf7; --card: #ffffff; --ink: #1d1f24; --soft: #5c6069; --faint: #8b8f98; --line: #e3e1da; --rule: #cfccc3;
  --accent: #1f5fa8; --right: #1c7a4a; --wrong: #b3382c;
  --c1: #1f6cb5; --c2: #c65a1e; --c3: #1e8573; --c4: #7a4fa8; --c5: #b23a6b; --c6: #7d7a1c;
  --stage-0: #858a94; --stage-1: #1f6cb5; --stage-2: #c65a1e; --stage-3: #7a4fa8;
  --serif: Charter, "Bitstream Charter", "Iowan Old Style", "Source Serif 4", Cambria, Georgia, serif;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", Arial, sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15171b; --card: #1c1f25; --ink: #e6e6e3; --soft: #a5a9b2; --faint: #7d828c; --line: #2c3038; --rule: #424752;
    --accent: #7db4ee; --right: #63c592; --wrong: #f0897d;
    --c1: #6aaef0; --c2: #ee9460; --c3: #5cc4af; --c4: #b794e6; --c5: #ea86ae; --c6: #c4c05a;
    --stage-0: #9a9fa9; --stage-1: #6aaef0; --stage-2: #ee9460; --stage-3: #b794e6;
  }
}
.grid { stroke: var(--line); stroke-width: 1; }
.rule { stroke: var(--rule); stroke-width: 1; }
.tick, .task { fill: var(--soft); font: 12.5px var(--sans); font-variant-numeric: tabular-nums; }
.task { fill: var(--ink); }
.task.strong { font-weight: 650; }
.line, .raw { fill: none; stroke: currentColor; stroke-linejoin: round; stroke-linecap: round; }
.line { stroke-width: 2; }
.raw { stroke-width: 1; opacity: .28; }
.area { fill: currentColor; opacity: .62; }
.dots circle, .dot circle { fill: currentColor; }
.dot line { stroke: currentColor; stroke-width: 2; stroke-linecap: round; opacity: .6; }
.guide { stroke: currentColor; stroke-width: 1.5; }
.guide.dashed { stroke-dasharray: 6 4; }
.dot.hollow .mark { fill: var(--paper); stroke: currentColor; stroke-width: 1.6; }
.dot .mark { fill: currentColor; }
.note { fill: var(--soft); font: 10px var(--sans); }
.cursor { stroke: var(--faint); stroke-width: 1; visibility: hidden; }
.c1 { color: var(--c1); } .c2 { color: var(--c2); } .c3 { color: var(--c3); }
.c4 { color: var(--c4); } .c5 { color: var(--c5); } .c6 { color: var(--c6); }
.c0 { color: var(--rule); }
.stage-0 { color: var(--stage-0); } .stage-1 { color: var(--stage-1); }
.stage-2 { color: var(--stage-2); } .stage-3 { color: var(--stage-3); }
"""
