"""What happens to the orders of the demo page, in the shortest handlers that show it."""
