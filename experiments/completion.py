"""Completion of `python -m JOB ...` in bash: jobs from the list, their options by tyro.

tyro completes programs that have a name of their own. Here the name is what follows `python -m`, so
the words before it are taken off and tyro's function is asked as if the job were the program. It is
made when it is first wanted: it needs the job's settings, and so the job's imports.
"""

from collections.abc import Sequence

_BASH = r"""# Jobs and their options: source <(python -m experiments --completion bash)
_realdex_jobs="@JOBS@"

_realdex() {
  COMPREPLY=()
  [[ ${COMP_WORDS[1]} == -m ]] || return
  local job=${COMP_WORDS[2]}
  if ((COMP_CWORD == 2)); then
    COMPREPLY=($(compgen -W "$_realdex_jobs" -- "$job"))
    return
  fi
  ((COMP_CWORD > 2)) && [[ " $_realdex_jobs " == *" $job "* ]] || return
  local asked=_tyro_${job//[^A-Za-z0-9]/_}
  if ! declare -F "$asked" > /dev/null; then
    eval "$("${COMP_WORDS[0]}" -m "$job" --tyro-print-completion bash 2> /dev/null)"
  fi
  declare -F "$asked" > /dev/null || return
  COMP_WORDS=("$job" "${COMP_WORDS[@]:3}")
  COMP_CWORD=$((COMP_CWORD - 2))
  "$asked"
}

complete -o bashdefault -o default -F _realdex python python3 .venv/bin/python
"""


def script(jobs: Sequence[str]) -> str:
    """What a shell is to read, for modules that can be run."""
    return _BASH.replace("@JOBS@", " ".join(jobs))
