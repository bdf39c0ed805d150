"""What drives a search: jobs, studies, dispatch to workers, storage, tracking and the command line."""
