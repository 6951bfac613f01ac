"""Topics of this process: who is subscribed, what was published, what can be replayed."""
