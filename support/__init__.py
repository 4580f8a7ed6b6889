"""Small pieces that everything else may use. Nothing here imports anything above it."""
