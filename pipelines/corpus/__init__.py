"""Steps over all clips: collect, select, label, describe, write shards."""
