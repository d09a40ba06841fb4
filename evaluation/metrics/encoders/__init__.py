"""Speaker encoders with published weights."""
