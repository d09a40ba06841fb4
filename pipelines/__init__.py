"""What a run leaves for people to read: the HTML report and the dataset card."""
