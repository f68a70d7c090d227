"""What an agent can do: accounting, actions, observations, rewards, episodes."""
