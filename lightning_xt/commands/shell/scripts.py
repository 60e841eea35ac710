"""Scripts of the shells, which ask `lightning-xt completion` for candidates.

It answers a line for each: the candidate, and a tab and a description.
"""

from types import MappingProxyType

BASH = r"""
_lightning_xt() {
    local word text
    COMPREPLY=()
    while IFS=$'\t' read -r word text; do
        # The part of a word that bash replaces begins after its last = sign.
        [[ $COMP_WORDBREAKS == *=* && $word == --*=* ]] && word=${word#*=}
        printf -v word %q "$word"
        COMPREPLY+=("$word")
    done < <(command "$1" completion bash --line="${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[/.=] ]] && compopt -o nospace
    return 0
}
complete -o default -F _lightning_xt lightning-xt
"""
ZSH = r"""
_lightning_xt() {
    local word text
    local -a whole parts
    while IFS=$'\t' read -r word text; do
        if [[ $word == *[/.=] ]]; then
            parts+=("${word//:/\\:}:$text")
        else
            whole+=("${word//:/\\:}:$text")
        fi
    done < <(command "$words[1]" completion zsh --line="${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)
    (( $#whole + $#parts )) || { _files; return }
    (( $#whole )) && _describe 'lightning-xt' whole
    (( $#parts )) && _describe 'lightning-xt' parts -S ''
    return 0
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _lightning_xt lightning-xt
"""
FISH = r"""
function __lightning_xt
    set -l found (command lightning-xt completion fish --line=(commandline -cp | string collect) 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c lightning-xt -f -k -a '(__lightning_xt)'
"""
SCRIPTS = MappingProxyType({"bash": BASH.lstrip(), "zsh": ZSH.lstrip(), "fish": FISH.lstrip()})
