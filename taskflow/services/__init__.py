"""What TaskFlow does beside answering requests: notifications, reports, and the news of tasks."""
