#!/bin/sh
# exec: gunicorn becomes process 1 and gets the engine's SIGTERM itself.
exec python3 -m gunicorn --config python:webui.server "$@" "webui.app:create_app()"
