"""What a grid takes before it runs, and the commands that run it."""
