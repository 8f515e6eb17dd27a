"""Every message that crosses HTTP (`api`) or the workers' connection (`channel`), once, for both ends."""
