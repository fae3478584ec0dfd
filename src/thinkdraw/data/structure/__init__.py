"""What a prompt names: objects, counts, colours and relations, read by templates, spaCy or a language model."""
