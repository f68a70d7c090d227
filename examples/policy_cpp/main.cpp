// Weights of a policy that `fastsim export RUN` wrote, by libtorch: decide POLICY.pt COLUMNS [FORECASTER.pt]
// Reads COLUMNS numbers from its input, prints a weight a line. With the artefact of a forecaster that
// reads closes, it forecasts a flat series beside it, and prints the first of its quantiles.
#include <torch/script.h>

#include <iostream>
#include <string>

int main(int count, const char** arguments) {
    if (count < 3) {
        std::cerr << "usage: decide POLICY.pt COLUMNS [FORECASTER.pt]\n";
        return 2;
    }
    torch::InferenceMode guard;
    auto policy = torch::jit::load(arguments[1]);
    auto seen = torch::zeros({1, std::stol(arguments[2])});
    for (int64_t column = 0; column < seen.size(1); ++column) {
        std::cin >> seen[0].data_ptr<float>()[column];
    }
    auto weights = policy.forward({seen}).toTensor().flatten();
    std::cout.precision(9);
    for (int64_t asset = 0; asset < weights.numel(); ++asset) {
        std::cout << weights[asset].item<float>() << "\n";
    }
    if (count > 3) {
        auto forecaster = torch::jit::load(arguments[3]);
        auto closes = torch::full({1, 512}, 100.0f);
        std::cout << forecaster.forward({closes}).toTensor().flatten()[0].item<float>() << "\n";
    }
}
