"""What gunicorn serves: Django's application, with a run for each checkout."""

import os

from django.core.wsgi import get_wsgi_application

from failpath_otel.integrations.wsgi import FailpathMiddleware

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
django_application = get_wsgi_application()

from .steps import failpath  # noqa: E402 - models can be imported only now

application = FailpathMiddleware(django_application, failpath, flow={"POST /checkout": "checkout"})
