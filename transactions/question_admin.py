"""Questions in the admin that are about no row yet: what is asked makes the first one."""

from django import forms
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from fintech_core.admin import AskingAdmin, Question, list_page


class FreshQuestionAdmin(AskingAdmin):
    def question_page(
        self, request: HttpRequest, question: Question, form: forms.Form, *, subtitle: str
    ) -> HttpResponse:
        """The question with its form, answered wrongly or not yet. "Back" leads to the list."""
        context = self.admin_site.each_context(request) | {
            "title": question.title,
            "subtitle": subtitle,
            "opts": self.opts,
            "question": question,
            "form": form,
            "back": list_page(self.model),
        }
        return TemplateResponse(request, self.question_template, context)
