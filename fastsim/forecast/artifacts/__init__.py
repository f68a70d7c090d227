"""Models as files that forecast without their code."""
