"""One loop for every stage: objectives, batches, optimisers, schedules, and runs that can be resumed."""
