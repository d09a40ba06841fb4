"""What travels between the parts: records, schemas, shards, datasets. No Ray and no torch at import."""
