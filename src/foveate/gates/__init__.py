"""See what attention does: record gates, play the pointing game with them, draw attention maps and boxes."""
