"""Language models over walks: encoders, losses, one training loop, and the trainers made of them."""
