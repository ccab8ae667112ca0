"""What is compiled: `entry` interprets a lowered program; the other modules hold its parts."""
