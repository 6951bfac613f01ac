"""The demo: a shop whose orders a stranger places and watches, for trying Holdfast out."""
