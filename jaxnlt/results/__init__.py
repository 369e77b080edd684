"""What a run writes: metrics, labels, summary, report."""
