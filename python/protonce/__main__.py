"""`python -m protonce` and the console script: the program itself, in place of this process."""

import os
import sys


def main():
    from protonce import program

    try:
        if sys.argv[1:2] == ["setup"]:
            if len(sys.argv) > 2:
                sys.exit("protonce setup: expected no arguments")
            print(program.setup())
            return
        path, environment = program.program(), program.environment()
    except program.ProgramError as error:
        sys.exit(f"protonce: {error}")
    os.execve(path, [str(path), *sys.argv[1:]], environment)


if __name__ == "__main__":
    main()
