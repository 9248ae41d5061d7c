"""Release: the gates, the deployed policy, the human decision."""
