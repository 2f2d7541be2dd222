"""The workers: the processes in which the users' functions run."""
