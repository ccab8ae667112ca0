"""What tests share: cases, tolerances, references, servers and faults."""
