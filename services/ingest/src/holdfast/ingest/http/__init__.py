"""HTTP in and out: the application, its routes, and what requests and answers look like."""
