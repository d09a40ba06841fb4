"""One file per kind of label: weights load once, a batch of audio goes in, plain typed labels come out. No Ray."""
