// Outline: an exported TensorRT engine in your own C++ loop. Reads a video, darkens what the model
// does not look at, and writes the explained video.
//
//     ./embed nem.engine clip.mp4 out.mp4
//
// CMakeLists.txt:
//     cmake_minimum_required(VERSION 3.18)
//     project(embed LANGUAGES CXX)
//     find_package(CUDAToolkit REQUIRED)
//     find_package(OpenCV REQUIRED)
//     add_executable(embed embed.cpp)
//     target_compile_features(embed PRIVATE cxx_std_17)
//     target_include_directories(embed PRIVATE ${OpenCV_INCLUDE_DIRS})
//     target_link_libraries(embed PRIVATE nvinfer CUDA::cudart ${OpenCV_LIBS})
//
// An engine is code: load only one that you built, or whose SHA-256 (in its .json) you checked.

#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <opencv2/opencv.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

class Logger : public nvinfer1::ILogger {
    // A refusal tells its reason here and nowhere else.
    void log(Severity severity, char const* message) noexcept override {
        if (severity <= Severity::kWARNING) std::cerr << message << '\n';
    }
};

void check(cudaError_t status) {
    if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

std::size_t width_of(nvinfer1::DataType type) {
    switch (type) {
        case nvinfer1::DataType::kUINT8: return 1;
        case nvinfer1::DataType::kINT32:
        case nvinfer1::DataType::kFLOAT: return 4;
        case nvinfer1::DataType::kINT64: return 8;
        default: throw std::runtime_error("a type that exported engines do not have");
    }
}

// One input or output: page-locked memory for the host, memory on the device, its fixed shape.
struct Port {
    nvinfer1::Dims shape{};
    std::size_t bytes = 0;
    void* host = nullptr;
    void* device = nullptr;
    bool input = false;
};

}  // namespace

int main(int argc, char** argv) try {
    if (argc != 4) throw std::runtime_error("usage: embed ENGINE SOURCE OUT");
    std::ifstream file(argv[1], std::ios::binary);
    std::vector<char> const blob{std::istreambuf_iterator<char>(file), {}};

    Logger logger;  // outlives all that is made with it
    std::unique_ptr<nvinfer1::IRuntime> runtime{nvinfer1::createInferRuntime(logger)};
    if (!runtime) throw std::runtime_error("TensorRT does not start");
    std::unique_ptr<nvinfer1::ICudaEngine> engine{
        runtime->deserializeCudaEngine(blob.data(), blob.size())};
    if (!engine) throw std::runtime_error("TensorRT refuses the engine; its reason is above");
    std::unique_ptr<nvinfer1::IExecutionContext> context{engine->createExecutionContext()};
    if (!context) throw std::runtime_error("no execution context; too little memory?");
    cudaStream_t stream{};
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));

    std::map<std::string, Port> ports;
    for (std::int32_t i = 0; i < engine->getNbIOTensors(); ++i) {
        char const* name = engine->getIOTensorName(i);
        Port port;
        port.shape = engine->getTensorShape(name);
        port.bytes = width_of(engine->getTensorDataType(name));
        for (int d = 0; d < port.shape.nbDims; ++d)
            port.bytes *= static_cast<std::size_t>(port.shape.d[d]);
        port.input = engine->getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
        check(cudaMallocHost(&port.host, port.bytes));
        check(cudaMalloc(&port.device, port.bytes));
        if (!context->setTensorAddress(name, port.device)) throw std::runtime_error(name);
        ports[name] = port;
    }
    if (ports.count("target"))  // -1: the most probable class
        std::memset(ports["target"].host, 0xFF, ports["target"].bytes);

    // frames is (1, H, W, 3) RGB; mask_embedding is (1, S, S) in [0, 1], 1 = looked at.
    if (!ports.count("mask_embedding"))
        throw std::runtime_error("no mask_embedding in this engine; name one of its masks here");
    Port const& frames = ports.at("frames");
    Port const& map = ports.at("mask_embedding");
    cv::Mat rgb(static_cast<int>(frames.shape.d[1]), static_cast<int>(frames.shape.d[2]), CV_8UC3,
                frames.host);
    cv::Mat const mask(static_cast<int>(map.shape.d[1]), static_cast<int>(map.shape.d[2]), CV_32FC1,
                       map.host);

    cv::VideoCapture video(argv[2]);
    if (!video.isOpened()) throw std::runtime_error(std::string(argv[2]) + ": can't be opened");
    double const told = video.get(cv::CAP_PROP_FPS), rate = told > 0 ? told : 25.0;
    cv::VideoWriter out;
    cv::Mat frame, small, large, shown;
    while (video.read(frame)) {
        cv::resize(frame, small, rgb.size(), 0, 0, cv::INTER_AREA);
        cv::cvtColor(small, rgb, cv::COLOR_BGR2RGB);  // size and type fit: written in place
        for (auto const& [name, port] : ports)
            if (port.input)
                check(cudaMemcpyAsync(port.device, port.host, port.bytes, cudaMemcpyHostToDevice,
                                      stream));
        if (!context->enqueueV3(stream)) throw std::runtime_error("TensorRT refused to run");
        check(cudaMemcpyAsync(map.host, map.device, map.bytes, cudaMemcpyDeviceToHost, stream));
        check(cudaStreamSynchronize(stream));

        cv::resize(mask, large, frame.size());
        large.convertTo(large, CV_32F, 0.75, 0.25);
        cv::cvtColor(large, large, cv::COLOR_GRAY2BGR);
        frame.convertTo(shown, CV_32F);
        cv::multiply(shown, large, shown);
        shown.convertTo(shown, CV_8U);
        if (!out.isOpened() &&
            !out.open(argv[3], cv::VideoWriter::fourcc('m', 'p', '4', 'v'), rate, shown.size()))
            throw std::runtime_error(std::string(argv[3]) + ": can't be written");
        out.write(shown);
    }

    for (auto& [name, port] : ports) {
        cudaFree(port.device);
        cudaFreeHost(port.host);
    }
    cudaStreamDestroy(stream);
    return 0;
} catch (std::exception const& error) {
    std::cerr << "embed: " << error.what() << '\n';
    return 1;
}
