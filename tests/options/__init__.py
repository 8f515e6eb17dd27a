"""Every option of a job, and one more: carried out by each runtime, or refused in words."""
