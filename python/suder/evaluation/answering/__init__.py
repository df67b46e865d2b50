"""Questions about pictures with known answers: read, asked, answered, scored and written down."""
