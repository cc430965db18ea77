"""The Grafana dashboards, as programs that make them."""
