"""Review: evidence against masks, and the cases that a person should look at first."""
