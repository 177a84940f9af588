"""What every room needs: errors, files, configuration, logging. Imports nothing of ours."""
