"""The operator: reconciles TrainingJobs into Jobs, Services and an honest status."""
