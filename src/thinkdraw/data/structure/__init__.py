"""What a prompt names: objects, counts, colours and relations.

They are read by templates, spaCy or a language model.
"""
