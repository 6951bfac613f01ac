"""What authors touch: declaring handlers, their context, and the outcomes that they raise."""
