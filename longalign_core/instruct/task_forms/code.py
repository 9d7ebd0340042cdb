"""Tasks about a code repository."""

from __future__ import annotations

from longalign_core.config.task_types import CodeTask
from longalign_core.instruct.task_forms.form import TaskForm

_REQUEST_EN = (
    "The text is a code repository, file after file. Each task is what a developer who works on it would ask a "
    "colleague, names the files, functions or classes concerned, and needs more than one file to be read. "
    "Kinds of tasks to spread them over: "
)
_REQUEST_ZH = (
    "文本是一个代码仓库，由多个文件依次组成。每个任务都是参与该项目的开发者会向同事提出的，要写明所涉及的文件、函数或类，"
    "并且需要阅读不止一个文件。任务应分布在以下几类："
)
_ACTIVITIES_EN = {
    "explain": "explain how several parts work together",
    "trace": "trace a call or a value from where it starts through every file to where it ends",
    "locate": "find all places that have to change for a described new behaviour or a described fault, and say how",
    "tests": "write tests for a named part, with its ordinary and its difficult cases",
    "documentation": "write documentation for a named part: what it is for, how it is used, what its limits are",
}
_ACTIVITIES_ZH = {
    "explain": "解释若干部分如何协同工作",
    "trace": "跟踪一次调用或一个值，从起点经过各个文件直到终点",
    "locate": "针对所描述的新行为或缺陷，找出所有需要修改的位置并说明如何修改",
    "tests": "为指定部分编写测试，包括一般情况和疑难情况",
    "documentation": "为指定部分编写文档：用途、用法和限制",
}


def form_of(task_type: CodeTask, language: str) -> TaskForm:
    """Tasks of the activities that the recipe names."""
    request, activities, between, end = (
        (_REQUEST_ZH, _ACTIVITIES_ZH, "；", "。") if language == "zh" else (_REQUEST_EN, _ACTIVITIES_EN, "; ", ".")
    )
    return TaskForm(request=request + between.join(activities[one] for one in task_type.activities) + end, is_task=True)
