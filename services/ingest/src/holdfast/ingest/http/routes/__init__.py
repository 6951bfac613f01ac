"""HTTP routes, a blueprint per resource."""
