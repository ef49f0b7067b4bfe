"""Write a small training script that needs no Thawbench, for the recommended strategy."""
