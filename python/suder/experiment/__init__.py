"""The objectives against their controls over seeds and warm starts, as a resumable grid."""
