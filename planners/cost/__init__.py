"""What a training step costs in memory and in time: estimated, and measured."""
