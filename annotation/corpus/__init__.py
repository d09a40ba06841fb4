"""What a clip is beside the others: speakers, expressiveness, references, eligibility."""
