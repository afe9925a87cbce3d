"""Rate limits of this app alone; the shared ones are in `fintech_core.ratelimit`."""

from rest_framework.request import Request

from fintech_core.ratelimit import RateLimit


class StatementPDFRateLimit(RateLimit):
    """Laying out and drawing thousands of lines is work for seconds. The other forms are not."""

    scope, setting = "statement pdf", "STATEMENT_PDF_RATE"
    methods = ("GET", "HEAD")

    def values(self, request: Request) -> list[str]:
        return super().values(request) if request.query_params.get("format") == "pdf" else []
