"""Language models behind one interface: chat endpoints, batches, replies on disk, an embedded writer."""
