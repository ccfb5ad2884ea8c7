"""TaskFlow's actors: TaskManager for the commands on tasks, a ProjectWorker for each active project."""
