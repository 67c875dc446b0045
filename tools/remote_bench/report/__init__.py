"""The report as a page, as JSON and in the bundle. Imports host, link, analysis and run."""
