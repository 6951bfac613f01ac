"""The console's addresses, one module for each thing that an operator looks at."""
